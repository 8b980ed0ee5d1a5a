// A client in Java: java Client PORT
//
// For each line "ID NAME" it looks the name up with InetAddress and connects to the addresses in that order, as the
// HTTP client of the AWS SDK does: each has two seconds. It prints "ID ADDRESS MILLISECONDS"; the address is "-" if none
// accepted. The property sun.net.inetaddr.ttl sets how long InetAddress caches a name.
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

public final class Client {
    public static void main(String[] words) throws Exception {
        int port = Integer.parseInt(words[0]);
        ExecutorService threads = Executors.newCachedThreadPool();
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            String[] task = line.split(" ");
            threads.execute(() -> run(task[0], task[1], port));
        }
        System.exit(0);
    }

    private static void run(String id, String name, int port) {
        long start = System.nanoTime();
        String address = connect(name, port);
        System.out.println(id + " " + address + " " + (System.nanoTime() - start) / 1_000_000.0);
    }

    private static String connect(String name, int port) {
        try {
            for (InetAddress address : InetAddress.getAllByName(name)) {
                try (Socket socket = new Socket()) {
                    socket.connect(new InetSocketAddress(address, port), 2_000);
                    return address.getHostAddress();
                } catch (java.io.IOException refused) {
                    // The next address follows.
                }
            }
        } catch (java.net.UnknownHostException unknown) {
            // As if no address had accepted.
        }
        return "-";
    }
}
