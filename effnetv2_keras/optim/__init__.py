"""Optimisation: learning-rate schedules, optimizers, moving averages of the weights, and the loss."""
