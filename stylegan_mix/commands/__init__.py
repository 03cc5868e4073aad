"""The commands of `stylegan-mix`, one file each; they import what they run when they run it."""
