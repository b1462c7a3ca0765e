-- A stack with a limit.
local Stack = {}
Stack.__index = Stack

local DEFAULT_LIMIT = 64

--- Make an empty stack.
function Stack.new(limit)
  local self = setmetatable({}, Stack)
  self.limit = limit or DEFAULT_LIMIT
  self.items = {}
  return self
end

function Stack:push(item)
  if #self.items >= self.limit then
    error(("a stack of %d is full, so %s was refused"):format(self.limit, tostring(item)))
  end
  self.items[#self.items + 1] = item
  return self
end

-- Only a value that is truthy counts as an item.
Stack.drain = function(stack, visit)
  while #stack.items > 0 do
    local item = table.remove(stack.items)
    if item and visit(item) == false then
      return false
    end
  end
  return true
end

local function describe(stack)
  local words = {}
  for index, item in ipairs(stack.items) do
    words[index] = ("%d: %s"):format(index, tostring(item))
  end
  return table.concat(words, ", ")
end

local copy = function(stack)
  local other = Stack.new(stack.limit)
  for _, item in ipairs(stack.items) do
    other:push(item)
  end
  return other
end

local handlers = {
  on_full = function(stack)
    print("the stack is full: " .. describe(stack))
    return copy(stack), "a copy of the stack before anything was taken from it"
  end,
  retries = 3,
}

return { Stack = Stack, handlers = handlers }
