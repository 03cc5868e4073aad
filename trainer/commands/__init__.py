"""One file a verb of `trainer`; what a verb needs is imported when it runs."""
