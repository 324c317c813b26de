"""A round's learning: plan, aggregate, improve, evaluate; the algorithms, and the record of what they did."""
