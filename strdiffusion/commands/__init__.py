"""The command `strdiffusion`, also `python -m strdiffusion`: one module for each of its commands, which the scripts run too."""
