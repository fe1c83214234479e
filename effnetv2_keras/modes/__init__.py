"""What ``--mode`` chooses: one module per mode."""
