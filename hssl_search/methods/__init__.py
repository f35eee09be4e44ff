"""Self-supervised objectives, one file each; `methods.base` says how to write one."""
