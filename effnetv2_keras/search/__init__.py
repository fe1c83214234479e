"""Training-aware architecture search: space, samplers, reward, trials and results (paper section 3.3)."""
