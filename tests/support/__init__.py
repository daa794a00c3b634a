"""What the tests share: a zoo of models, and helpers."""
