"""The verbs of the command, one module each; ``cli/commands.py`` names them."""
