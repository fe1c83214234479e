"""Training-aware architecture search and non-uniform scaling (paper section 3.3)."""
