"""What an average of the weights is worth, under five schedules."""
