"""The signature is the schema: what a factory takes, checked, and said with exact errors."""
