"""The sections of the stages: a module per stage, named as it is, with one class; light: the wiring imports it."""
