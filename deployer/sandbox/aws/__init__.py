"""AWS in the sandbox: moto behind EC2's own rules, the `aws` provider plugin over it, and what exists there."""
