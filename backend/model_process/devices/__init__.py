"""A model with instances on several devices: each request goes to the one where it is predicted to end first."""
