"""Both trainings: self-supervised pre-training and supervised fine-tuning."""
