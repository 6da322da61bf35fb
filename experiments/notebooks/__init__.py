"""Notebooks about a run, in the percent format of Python: they open in VS Code and, with jupytext, in Jupyter.

Each is a plain script too: python experiments/notebooks/NAME.py [RUN], runs/quickstart unless told otherwise.
"""
