"""How good the fast weights are: loss by position against honest controls, specificity, answering, drift, needles.

`python -m ttt_training.evaluate --help`; docs/how-to/evaluating.md says what each number means.
"""
