"""Networks described as data: blocks, named variants, parameter and FLOP counts, and scaling and fusing rules."""
