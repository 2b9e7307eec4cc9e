"""Whole folders of scans: found, detected, written and remembered, so that a run can go on where it stopped."""
