"""The commands of `stylegan-mix`, one file each; heavy modules are imported when a command runs."""
