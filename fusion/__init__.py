"""The subject: images of two modalities made into batches, and the models that read them."""
