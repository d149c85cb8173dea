"""What the results say: reads result files alone, never the programs that wrote them."""
