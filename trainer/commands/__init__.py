"""The verbs of `trainer`, one file each; heavy modules are imported when a verb runs."""
