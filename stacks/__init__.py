"""What a participant's infrastructure is: one typed Pulumi component for each cloud."""
