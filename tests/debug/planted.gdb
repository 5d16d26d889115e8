rapt until nan
rapt where $node
rapt print $node->kept[0]
