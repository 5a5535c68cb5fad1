"""One script per question; README.md lists them with their commands and latest answers."""
