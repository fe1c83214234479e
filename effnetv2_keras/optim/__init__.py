"""Optimization: learning-rate schedules, optimizers, gradient clipping, weight averages (EMA), and losses."""
