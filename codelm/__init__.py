"""What a code language model is: config, tokenizer, prompt formats, model, arithmetic; and the `codelm` command.

This room imports no other room. Importing it is cheap: jax is loaded by the modules that compute.
"""

__version__ = "0.1.0"
