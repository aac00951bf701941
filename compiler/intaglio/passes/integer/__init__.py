"""What `make_integer` is made of: descriptions of real tensors, the walk that finds them, the ops it emits."""
