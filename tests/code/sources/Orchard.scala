package farm.orchard

import scala.collection.mutable

/** A tree, and what it bore in each year. */
@SerialVersionUID(1L)
case class Tree(name: String, harvests: Map[Int, Double]) extends Ordered[Tree] {
  // The heavier tree comes first.
  override def compare(other: Tree): Int = {
    val mine = harvests.values.sum
    val theirs = other.harvests.values.sum
    java.lang.Double.compare(theirs, mine)
  }

  def best: Option[(Int, Double)] =
    harvests.toSeq.sortBy { case (year, kilos) => (-kilos, year) }.headOption.filter(_._2 > 0)
}

object Tree {
  def parse(line: String): Tree = {
    val Array(name, rest @ _*) = line.split(";").map(_.trim)
    val harvests = rest.map(_.split("=")).collect { case Array(year, kilos) => year.toInt -> kilos.toDouble }
    Tree(name, harvests.toMap)
  }
}

sealed trait Pest {
  def severity: Int
  def describe(tree: Tree): String = s"${tree.name} has a pest of severity $severity, which needs to be seen to soon"
}

enum Season:
  case Spring, Summer, Autumn, Winter

  def next: Season = Season.fromOrdinal((ordinal + 1) % Season.values.length)

given byName: Ordering[Tree] with
  def compare(left: Tree, right: Tree): Int =
    left.name.compareToIgnoreCase(right.name)

extension (trees: Seq[Tree])
  def heaviest(count: Int): Seq[Tree] =
    val sorted = trees.sorted
    sorted.take(count max 0).filter(tree => tree.harvests.nonEmpty && tree.best.isDefined)

def report(trees: Seq[Tree]): Unit =
  for tree <- trees do
    val (year, kilos) = tree.best.getOrElse((0, 0.0))
    println(f"${tree.name}%-20s $year%4d $kilos%8.1f")
