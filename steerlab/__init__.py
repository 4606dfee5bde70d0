"""steerlab: five ways of steering a language model, side by side on the same models, data, scorers and metrics.

Importing the package imports no torch: the Snakefile and the command line start in well under a second.
"""
