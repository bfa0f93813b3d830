"""The commands: one file each, and what they do about signals and memory."""
