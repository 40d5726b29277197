"""The language side: chat templates, the tokenizer, and the model that reads frames and text."""
