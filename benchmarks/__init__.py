"""One script per question; README.md says how to run them, results/README.md what they measured."""
