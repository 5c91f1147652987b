"""Build time: plan, layers, ISO, evidence."""
