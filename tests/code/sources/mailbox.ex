defmodule Post.Mailbox do
  @moduledoc "Letters that wait for one reader."
  use GenServer

  defstruct letters: [], limit: 100

  @doc "Put a letter into the box, unless it is full."
  @spec put(t, String.t()) :: {:ok, t} | {:error, :full}
  def put(%__MODULE__{letters: letters, limit: limit}, _letter) when length(letters) >= limit do
    {:error, :full}
  end

  def put(box, letter) do
    {:ok, %{box | letters: [String.trim(letter) | box.letters]}}
  end

  def size(box), do: length(box.letters)

  # The oldest letter is the last one.
  defp oldest(%{letters: []}), do: nil

  defp oldest(%{letters: letters}) do
    letters
    |> Enum.reverse()
    |> Enum.find(fn letter -> String.length(letter) > 0 and not String.starts_with?(letter, "#") end)
  end

  defmacro with_box(name, do: block) do
    quote do
      box = Registry.lookup(Post.Registry, unquote(name))
      unless box, do: raise(ArgumentError, "there is no mailbox of that name")
      unquote(block)
    end
  end

  @impl true
  def handle_call(:oldest, _from, box) do
    {:reply, oldest(box), box}
  end
end

defprotocol Post.Stamp do
  @doc "What sending it costs, in cents."
  def cost(letter)
end

defimpl Post.Stamp, for: BitString do
  def cost(letter) do
    pages = div(String.length(letter), 1_800) + 1
    80 + 25 * (pages - 1)
  end
end
