<?php
declare(strict_types=1);

namespace Example\Http;

use InvalidArgumentException;

/**
 * Finds the handler of a path.
 */
#[\Attribute]
final class Router
{
    use Logging;

    private array $routes = [];

    /**
     * Add a route; braces in the pattern stand for one part of the path.
     */
    public function add(string $method, string $pattern, callable $handler): static
    {
        if (!str_starts_with($pattern, '/')) {
            throw new InvalidArgumentException("a pattern starts with a slash, got '$pattern'");
        }
        $expression = preg_replace('/\{(\w+)\}/', '(?<$1>[^/]+)', $pattern);
        $this->routes[strtoupper($method)]["#^$expression$#"] = $handler;
        return $this;
    }

    // The first route that fits wins, so the narrow ones are added before the wide ones.
    public function find(string $method, string $path): ?array
    {
        foreach ($this->routes[strtoupper($method)] ?? [] as $expression => $handler) {
            if (preg_match($expression, $path, $found)) {
                $named = array_filter($found, 'is_string', ARRAY_FILTER_USE_KEY);
                return [$handler, $named];
            }
        }
        return null;
    }
}

interface Handler
{
    public function handle(array $parameters): string;
}

function redirect(string $to, int $status = 302): string
{
    if ($status < 300 || $status > 399) {
        throw new InvalidArgumentException("$status is no redirection; use 301, 302, 303, 307 or 308");
    }
    header("Location: $to", true, $status);
    return '';
}
?>
<footer>served by the router</footer>
