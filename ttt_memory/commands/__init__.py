"""The commands of `ttt-memory`, a module a group."""
