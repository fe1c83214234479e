"""What a network is, as data: blocks, named variants, counts and the rules that scale and fuse them."""
