"""What every folder may use: reading of small files, limits on files, exact numbers, the end of the process."""
