"""Who is told of each round: TensorBoard, checkpoints, and observers of anybody's own."""
