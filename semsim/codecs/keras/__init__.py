"""Keras and TensorFlow models as the ends of a link, and their weights as semsim's."""
