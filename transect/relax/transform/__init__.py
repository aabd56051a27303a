"""Graph passes, one file each. Lowering of tensor programs is in `tir.transform`."""
