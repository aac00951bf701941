"""The accelerator's contract: its configuration, its memories' layout and its program format."""
