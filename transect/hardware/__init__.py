"""One folder per hardware target: intrinsics, schedule rules, usable libraries."""
