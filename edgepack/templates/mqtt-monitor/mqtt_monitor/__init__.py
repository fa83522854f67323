"""Sensor windows from MQTT through a model on this device; results, and an action when a state changes."""
