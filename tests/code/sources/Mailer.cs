using System;
using System.Collections.Generic;
using System.Threading.Tasks;

namespace Example.Mail
{
    /// <summary>A message that is ready to go.</summary>
    public record Message(string To, string Subject, string Body);

    /// <summary>
    /// Sends messages, a few at a time.
    /// </summary>
    [Serializable]
    public class Mailer : IAsyncDisposable
    {
        private readonly Queue<Message> waiting = new();
        private readonly Func<Message, Task> deliver;

        public Mailer(Func<Message, Task> deliver, int limit = 10)
        {
            this.deliver = deliver ?? throw new ArgumentNullException(nameof(deliver));
            if (limit < 1)
            {
                throw new ArgumentOutOfRangeException(nameof(limit), limit, "at least one message at a time");
            }
            Limit = limit;
        }

        public int Limit { get; }

        /// <summary>Put a message in the queue.</summary>
        /// <returns>How many are waiting now.</returns>
        [Obsolete("use SendAsync")]
        public int Enqueue(Message message)
        {
            if (string.IsNullOrWhiteSpace(message.To))
            {
                throw new ArgumentException($"message '{message.Subject}' has no recipient", nameof(message));
            }
            waiting.Enqueue(message);
            return waiting.Count;
        }

        // Messages that fail go to the end of the queue and are tried again by the next call.
        public async Task<int> SendAsync()
        {
            var sent = 0;
            for (var round = 0; round < Limit && waiting.Count > 0; round++)
            {
                var message = waiting.Dequeue();
                try
                {
                    await deliver(message).ConfigureAwait(false);
                    sent++;
                }
                catch (TimeoutException)
                {
                    waiting.Enqueue(message);
                }
            }
            return sent;
        }

        public async ValueTask DisposeAsync() => await SendAsync();
    }
}
