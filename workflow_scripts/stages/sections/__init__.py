"""What each stage is told: a module per stage, named as it is, with one section; light, since the wiring imports it."""
