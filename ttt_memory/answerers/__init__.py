"""From passages to an answer: quoted as they stand, or written by the local model."""
